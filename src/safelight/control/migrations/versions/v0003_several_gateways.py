"""Several gateways: what they share, whose a job is, and a notification of each change that others must know of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TELL_TABLE = """
CREATE FUNCTION safelight_tell_table() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('safelight', TG_TABLE_NAME);
  RETURN NULL;
END $$
"""
TELL_JOB = """
CREATE FUNCTION safelight_tell_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('safelight', 'jobs ' || NEW.id || ' ' || NEW.state);
  RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "shared_secrets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("encrypted_value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("deployments", sa.Column("applied_by", sa.String(length=36), nullable=True))
    op.add_column("jobs", sa.Column("gateway_id", sa.Integer(), nullable=True))
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(TELL_TABLE)
    op.execute(TELL_JOB)
    for table in ("endpoints", "deployments", "operations"):
        op.execute(
            f"CREATE TRIGGER safelight_tell AFTER INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION safelight_tell_table()"
        )
    op.execute(
        "CREATE TRIGGER safelight_tell AFTER INSERT OR UPDATE OF state ON jobs "
        "FOR EACH ROW EXECUTE FUNCTION safelight_tell_job()"
    )
