"""What a caller's specs name by ids: whether it can be used, and what a model's headers tell of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from api.auth import Caller, Principal
from api.resources import Resources, Shared
from api.store.errors import StoreError
from api.store.models import Json
from api.store.sources import Named, files_of, named_in
from api.stored_models import shape_of
from sentinel.errors import FieldError, SpecInvalid
from sentinel.locating import MODEL
from sentinel.model_shape import ModelShape
from sentinel.spec import JobModel, UploadModel


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The uploads and the jobs of one caller."""

    resources: Resources
    caller: Principal

    def check(self, session: Session, spec: Json) -> None:
        """Refuse a resolved spec that names what cannot be used; what it names is kept until the transaction ends.

        Raises:
            SpecInvalid: With every such name.
        """
        if refused := list(self.mistakes_in(session, spec)):
            raise SpecInvalid(refused[0].message, errors=refused)

    def mistakes_in(self, session: Session, spec: Json) -> Iterator[FieldError]:
        """Everything that a resolved spec, or its `model` and `data`, names and that cannot be used; as for `check`."""
        for named in named_in(spec):
            try:
                files_of(session, self.caller.tenant, named)
            except StoreError as error:
                yield FieldError(pointer=named.pointer, code=error.code, message=error.message)

    def shape(self, model: UploadModel | JobModel) -> ModelShape:
        """What the headers of its weights say.

        Raises:
            SentinelError: It cannot be used, or not be read now.
        """
        named = Named(MODEL, model.source, model.id, "/model/id")
        with self.resources.database.reading() as session:
            files = files_of(session, self.caller.tenant, named)
        return shape_of(self.resources.storage, files, self.resources.settings.model_limits)


def _of(resources: Shared, caller: Caller) -> Sources:
    return Sources(resources=resources, caller=caller)


CallersSources = Annotated[Sources, Depends(_of)]
