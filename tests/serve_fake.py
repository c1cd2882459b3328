"""A server in a process of its own with a made-up engine: serve_fake.py BANK PORT [KEY=VALUE ...]."""

import logging
import sys
from pathlib import Path

from fake_engine import open_engine, write_bank

from weft.config.files import changed, parse_overrides
from weft.server.run import Place, serve
from weft.server.settings import ServeConfig


def main(bank: str, port: str, *overrides: str) -> None:
    path = Path(bank)
    if not path.exists():  # something to look at
        tasks = {f"task-{i}": {"source": "{title}: {text}"} if i % 2 else {} for i in range(30)}
        write_bank(path, poem={"closed": False}, **tasks)
    logging.basicConfig(level=logging.INFO)
    settings = changed(ServeConfig(), dict(parse_overrides(list(overrides))))
    serve(path, open_engine, settings, Place("127.0.0.1", int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
