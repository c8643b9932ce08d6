# SPDX-License-Identifier: MIT
"""SQLAlchemy: a session with changes that are not flushed, lazy loading, an engine with a pool of
connections to a file, a transaction with a savepoint between epochs.

live: rounds=30 needs=sqlalchemy
"""
import sys

import pyheap
from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Run(Base):
    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    points: Mapped[list["Point"]] = relationship(back_populates="run")


class Point(Base):
    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"))
    value: Mapped[float]
    run: Mapped[Run] = relationship(back_populates="points")


def main():
    rounds = int(sys.argv[1])
    engine = create_engine("sqlite://")  # in memory: in the epoch with all the rest
    Base.metadata.create_all(engine)
    session = Session(engine)
    for r in range(rounds):
        run = Run(id=r + 1)
        session.add(run)
        run.points.extend(Point(value=n / 2) for n in range(r % 20))
        pyheap.epoch()  # the unit of work is full
        nested = session.begin_nested()
        session.add(Point(value=1000.0, run=run))
        session.flush()
        nested.rollback()
        session.commit()
        again = session.get(Run, r // 2 + 1)
        assert len(again.points) == (r // 2) % 20
        total = session.scalar(select(func.sum(Point.value))) or 0.0
        if r % 10 == 0:
            print(r, total)
    session.close()
    engine.dispose()


main()
