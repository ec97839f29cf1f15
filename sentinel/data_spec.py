"""The `data` section of a spec: where text comes from, and how it is cut. Torch-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sentinel.prune_spec import Section

UploadId = Annotated[str, Field(pattern=r"^upl_[0-9a-f]{32}$")]


class Splits(Section):
    """Names of the hub dataset's splits."""

    train: str = Field("train", description="Split for calibration and healing.")
    evaluation: str = Field("validation", description="Split that only evaluation sees.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.train == self.evaluation:
            raise ValueError("`train` and `evaluation` must be different splits.")
        return self


# What sources of text have in common; not a base class, whose fields would come before a source's own.
Chat = Annotated[
    bool,
    Field(
        description="The column holds conversations, lists of messages with `role` and `content`, which the "
        "tokenizer's chat template writes out."
    ),
]
FileColumn = Annotated[str, Field(description="Column that holds the text; txt files have only `text`.")]
HeldOut = Annotated[
    float,
    Field(gt=0, lt=1, description="Share of `train`, from its end, kept for evaluation when `evaluation` is null."),
]
Isolated = Annotated[bool, Field(description="Let no token attend to another document in its window than its own.")]
Length = Annotated[int, Field(ge=8, le=32768, description="Tokens per window.")]


class HubData(Section):
    """A dataset of the Hugging Face Hub."""

    source: Literal["hub"] = Field("hub", description="Where from.")
    # No part may begin with a dot: `datasets` would take `..` for a folder of this machine.
    id: str = Field(
        description="Dataset id, e.g. `Salesforce/wikitext`.", pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$", max_length=200
    )
    config: str | None = Field(None, description="Dataset configuration, e.g. `wikitext-2-raw-v1`.")
    revision: str = Field("main", description="Branch, tag or commit.")
    column: str = Field("text", description="Column that holds the text.")
    chat: Chat = False
    splits: Splits = Field(default_factory=Splits, description="Which split serves what.")
    streaming: bool = Field(
        default=False, description="Read no more of the dataset than the run needs, and keep none of it on disk."
    )
    sequence_length: Length = 512
    isolate_documents: Isolated = False


class PathData(Section):
    """Local text: txt (documents parted by blank lines), jsonl, csv or parquet."""

    source: Literal["path"] = Field("path", description="Where from.")
    train: str = Field(description="File for calibration and healing.", min_length=1)
    evaluation: str | None = Field(None, description="File that only evaluation sees; null holds out `held_out`.")
    held_out: HeldOut = 0.1
    column: FileColumn = "text"
    chat: Chat = False
    sequence_length: Length = 512
    isolate_documents: Isolated = False


class UploadData(Section):
    """Text that was uploaded to the service that runs the job; read like local files."""

    source: Literal["upload"] = Field("upload", description="Where from.")
    train: UploadId = Field(description="Upload for calibration and healing, `upl_…`; one of kind `text`.")
    evaluation: UploadId | None = Field(
        None, description="Upload that only evaluation sees; null holds out `held_out`."
    )
    held_out: HeldOut = 0.1
    column: FileColumn = "text"
    chat: Chat = False
    sequence_length: Length = 512
    isolate_documents: Isolated = False

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.train == self.evaluation:
            raise ValueError("`train` and `evaluation` must be different uploads.")
        return self


class BuiltinData(Section):
    """Text from Sentinel's own generators; train and evaluation never overlap."""

    source: Literal["builtin"] = Field("builtin", description="Where from.")
    id: Literal["stories", "programs"] = Field(
        "stories",
        description="`stories`: small English stories, which the built-in models know; `programs`: small Python "
        "functions with calls and what they print, which they do not.",
    )
    sequence_length: Length = 128
    isolate_documents: Isolated = False


# What can be read from anywhere; `sentinel.locating` makes one of these of what only a service has.
DataSource = Annotated[HubData | PathData | BuiltinData, Field(discriminator="source")]
