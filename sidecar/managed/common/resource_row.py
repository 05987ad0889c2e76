"""What environments, vaults and credentials share: a row with times, and a body that is answered as it is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sidecar.managed.common import pagination, timestamps
from sidecar.store.interface import Connection, Row, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """`body` holds the fields that clients set. Every further field of a subclass is a column too."""

    table: ClassVar[str]
    type: ClassVar[str]
    id: str
    created_at: str
    updated_at: str
    archived_at: str | None
    body: dict[str, Any]

    @classmethod
    def new(cls, id_: str, body: dict[str, Any], **columns: str) -> Self:
        """Make one that is to be inserted now."""
        now = timestamps.now()
        return cls(id=id_, created_at=now, updated_at=now, archived_at=None, body=body, **columns)

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Read a row of the table."""
        columns = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        return cls(**columns | {"body": json.loads(row["body"])})

    def answer(self) -> dict[str, Any]:
        """Return the API's object."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        id_, body = fields.pop("id"), fields.pop("body")
        return {"id": id_, "type": self.type, **body, **fields}

    def insert(self, connection: Connection, **secret_columns: bytes) -> None:
        """Store it, with columns that are never answered."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        row |= {"body": json.dumps(self.body), **secret_columns}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(
            f"INSERT INTO {self.table} ({names}) VALUES ({marks})",  # noqa: S608  # our names
            list(row.values()),
        )

    def with_body(self, connection: Connection, body: dict[str, Any]) -> Self:
        """Store another body and return what is stored now."""
        changed = dataclasses.replace(self, body=body, updated_at=timestamps.now())
        connection.execute(
            f"UPDATE {self.table} SET body = ?, updated_at = ? WHERE id = ?",  # noqa: S608  # our name
            (json.dumps(body), changed.updated_at, self.id),
        )
        return changed

    @classmethod
    async def page(
        cls, database: Store, query: pagination.Query, *, include_archived: bool
    ) -> pagination.Envelope:
        """Return a page of answers; the query may already have conditions."""
        query.select = f"SELECT * FROM {cls.table}"  # noqa: S608  # our name
        if not include_archived:
            query.where("archived_at IS NULL")
        return await database.read(
            lambda connection: pagination.fetch_page(connection, query).envelope(
                lambda row: cls.from_row(row).answer()
            )
        )
