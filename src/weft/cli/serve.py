"""The command that answers over HTTP."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.app import Base, EncodersHere, Sets, app, places_of
from weft.config.files import changed, parse_overrides
from weft.errors import ConfigError, UnsupportedError

LOCAL = ("127.0.0.1", "::1", "localhost")


@app.command
def serve(
    bank: Path,
    *,
    host: Annotated[
        str, Parameter(help="address to listen at; 0.0.0.0 for all of this machine")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0: any that is free")] = 8000,
    api_key_file: Annotated[Path | None, Parameter(help="file with API keys, one a line")] = None,
    allow_admin: Annotated[bool, Parameter(negative="", help="offer /v1/admin; wants API keys")] = False,
    base: Base = None,
    encoder: EncodersHere = None,
    workers: Annotated[int, Parameter(help="processes with the model; one is all there is so far")] = 1,
    set_: Sets = None,
) -> None:
    """Serve the tasks of BANK over HTTP, in the form of OpenAI's API, with a page at /.

    The model lives in a process of its own, which is replaced if it dies or hangs. SIGTERM lets what is
    admitted be answered. Limits and times for --set: weft config ServeConfig. See docs/serve.md.
    """
    if workers != 1:
        raise ConfigError(
            "one worker is all that is served so far", fix="start more servers on the same bank"
        )
    try:
        from weft.server.run import Place, serve
    except ModuleNotFoundError as error:
        cause = f"serving needs the package {error.name}"
        raise UnsupportedError(cause, fix="pip install 'weft[serve]'", code="C18") from None
    from weft.server.keys import read_keys
    from weft.server.opening import open_engine
    from weft.server.settings import ServeConfig

    settings = changed(ServeConfig(), dict(parse_overrides(set_ or [])))
    keys = read_keys(api_key_file) if api_key_file else ()
    places = places_of(base, None, encoder)
    opens = partial(open_engine, base=places.base, encoders=places.encoders)
    place = Place(host, port, keys, allow_admin)
    if not keys and host not in LOCAL:
        print("warning: anybody who reaches this address may ask; see --api-key-file", file=sys.stderr)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    serve(bank, opens, settings, place)
