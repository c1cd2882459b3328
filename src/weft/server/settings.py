"""What a server allows, and how long it waits."""

from pydantic import Field

from weft.config.base import Config


class ServeConfig(Config):
    """Limits and times of a server; every limit has its own refusal, which names it."""

    body_bytes: int = Field(4 << 20, gt=0, description="most bytes of a request's body")
    receive_seconds: float = Field(
        10, gt=0, description="until a request's head, and then its body, are here"
    )
    send_seconds: float = Field(30, gt=0, description="until a reader has taken what is sent to it")
    connections: int = Field(2048, gt=0, description="most requests that are open at once")
    text_signs: int = Field(100_000, gt=0, description="most characters of one text, or of one row's fields")
    items: int = Field(256, gt=0, description="most texts or rows of one request")
    answers: int = Field(2048, gt=0, description="most answers of one request: texts times tasks")
    new_tokens: int = Field(4096, gt=0, description="most tokens that one answer may be asked to have")
    queue_rows: int = Field(4096, gt=0, description="most answers that wait")
    queue_tokens: int = Field(2_000_000, gt=0, description="most tokens, as estimated, that wait")
    share: float = Field(0.5, gt=0, le=1, description="most of the queue that one task, or one key, may fill")
    running_rows: int = Field(128, gt=0, description="answers that the model works on at once")
    running_tokens: int = Field(65_536, gt=0, description="tokens, as estimated, that it works on at once")
    deadline_seconds: float = Field(60, gt=0, description="from a request's admission to its answer")
    start_seconds: float = Field(600, gt=0, description="until a worker has its model")
    hang_seconds: float = Field(60, gt=0, description="without a sign of life, after which a worker is ended")
    drain_seconds: float = Field(30, gt=0, description="for admitted requests after SIGTERM")
    poll_seconds: float = Field(3, gt=0, description="between looks for a new generation of the bank")
