# SPDX-License-Identifier: MIT
"""pydantic: models with validators, generics and aliases that Rust checks, an error that is being
handled at the epoch, models that are made after a recovery.

live: rounds=60 needs=pydantic
"""
import sys

import pyheap
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model, field_validator


class Point(BaseModel):
    x: float = Field(ge=0)
    tags: list[str] = []

    @field_validator("tags")
    @classmethod
    def sort_tags(cls, value):
        return sorted(value)


class Cloud(BaseModel):
    points: list[Point]
    size: int = Field(alias="n")


def main():
    rounds = int(sys.argv[1])
    adapter = TypeAdapter(dict[int, Point])
    for r in range(rounds):
        cloud = Cloud.model_validate({"points": [{"x": n, "tags": ["b", "a"]} for n in range(50)],
                                      "n": str(r)})
        try:
            Point(x=-1, tags=[r])
        except ValidationError as error:
            pyheap.epoch()
            assert error.error_count() == 2, error
        assert Cloud.model_validate_json(cloud.model_dump_json(by_alias=True)) == cloud
        assert adapter.validate_python({"7": {"x": r}})[7].x == r
        if r % 10 == 0:
            other = create_model(f"Other{r}", value=(int, ...))
            print(r, other(value="3").value + cloud.size, cloud.points[0].tags)


main()
