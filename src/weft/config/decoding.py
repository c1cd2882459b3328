"""How written answers are chosen among all that a model could write."""

from pydantic import Field, model_validator

from weft.config.base import Config


class Decoding(Config):
    """How answers are written: greedily, by beams, or drawn. Closed answers are chosen, and not concerned."""

    num_beams: int = Field(1, ge=1, description="beginnings kept at each token; 1: the likeliest token alone")
    length_penalty: float = Field(
        1.0, description="of beams: log-probabilities are divided by the length to this power; more: longer"
    )
    temperature: float = Field(
        0.0, ge=0, description="0: the likeliest token; else tokens are drawn, of logits divided by this"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw among the likeliest tokens that have this probability together"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of draws; a row's also follow from its text")

    @model_validator(mode="after")
    def _one_way(self) -> "Decoding":
        if self.num_beams > 1 and self.temperature:
            raise ValueError("answers are searched (num_beams) or drawn (temperature), not both")
        if self.num_beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty goes with num_beams above 1")
        if not self.temperature and (self.top_p != 1 or self.seed):
            raise ValueError("top_p and seed go with a temperature above 0: nothing is drawn without")
        return self

    @property
    def words(self) -> str:
        """The same, in words."""
        if self.temperature:
            return f"drawn at temperature {self.temperature:g}, top_p {self.top_p:g}, seed {self.seed}"
        penalty = f"length penalty {self.length_penalty:g}"
        return f"{self.num_beams} beams, {penalty}" if self.num_beams > 1 else "greedy"


GREEDY = Decoding()
