from typing import Any, Callable, Final, Optional, TypedDict, TypeVar

_Callback = TypeVar("_Callback", bound=Callable[[], Any])
_File = TypeVar("_File")

class _Status(TypedDict):
    epoch: int
    durable: int
    recoveries: int
    pages_staged: int
    pages_ahead: int
    bytes_staged: int
    pages_written: int
    bytes_written: int
    total_pages_staged: int
    total_bytes_staged: int
    total_pages_written: int
    total_bytes_written: int
    staging_size: int
    pause: float
    wait: float
    commit: float
    tracker: str

__version__: Final[str]
active: Final[bool]

class Error(RuntimeError): ...
class KeeperError(Error): ...
class PoolFullError(Error): ...
class ForkError(Error): ...
class ThreadError(Error): ...
class UnsupportedError(Error): ...

def epoch(label: Optional[str] = None, wait: bool = False) -> int: ...
def sync() -> int: ...
def status() -> _Status: ...
def on_restore(callback: _Callback, /) -> _Callback: ...
def on_epoch(callback: _Callback, /) -> _Callback: ...
def keep_file(file: _File, /) -> _File: ...
