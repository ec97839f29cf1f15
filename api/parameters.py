"""Path parameters that several routers share. Printable ASCII, because PostgreSQL refuses NUL in any text."""

from typing import Annotated

from fastapi import Path

ID = r"^[!-~]{1,64}$"
JobId = Annotated[str, Path(description="`job_…`", pattern=ID)]
WebhookId = Annotated[str, Path(description="`whk_…`", pattern=ID)]
DeliveryId = Annotated[str, Path(description="`dlv_…`", pattern=ID)]
ArtifactId = Annotated[str, Path(description="`art_…`", pattern=ID)]
