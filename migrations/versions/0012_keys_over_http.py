"""Lets the command API revoke and rotate API keys, by two functions that can do nothing else."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ORIGIN = "ALTER TABLE api_keys ADD COLUMN origin_key_id text"
INDEX = "CREATE INDEX api_keys_origin_idx ON api_keys (origin_key_id) WHERE origin_key_id IS NOT NULL"

# Each function has the rights of the owner of the table. Its search path is fixed, so that no other table can be put in place.
REVOKE = """
    CREATE FUNCTION revoke_api_key(key text) RETURNS SETOF text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        WITH RECURSIVE ended AS (
            SELECT key_id FROM public.api_keys WHERE key_id = $1 AND revoked_at IS NULL
            UNION
            SELECT made.key_id FROM public.api_keys made JOIN ended ON made.origin_key_id = ended.key_id
        )
        UPDATE public.api_keys SET revoked_at = now()
        WHERE revoked_at IS NULL AND key_id IN (SELECT key_id FROM ended)
        RETURNING key_id
    $$
"""
# The new key has what the old one has. Its end is not after that of its origin, and the origin has all its scopes.
ROTATE = """
    CREATE FUNCTION rotate_api_key(old_key text, origin_key text, new_key text, new_hash bytea, overlap interval)
    RETURNS timestamptz[]
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        WITH made AS (
            INSERT INTO public.api_keys
                (key_id, ledger_id, principal, user_id, scopes, token_hash, expires_at, created_at, origin_key_id)
            SELECT $3, old.ledger_id, old.principal, old.user_id, old.scopes, $4,
                   least(now() + (old.expires_at - old.created_at), origin.expires_at), now(), origin.key_id
            FROM public.api_keys old JOIN public.api_keys origin ON origin.ledger_id = old.ledger_id
            WHERE old.key_id = $1 AND old.revoked_at IS NULL AND old.scopes <@ origin.scopes
              AND origin.key_id = $2 AND origin.user_id IS NULL
              AND origin.revoked_at IS NULL AND (origin.expires_at IS NULL OR origin.expires_at > now())
            RETURNING expires_at
        ), shortened AS (
            UPDATE public.api_keys SET expires_at = least(expires_at, now() + $5)
            WHERE key_id = $1 AND EXISTS (SELECT FROM made)
            RETURNING expires_at
        )
        SELECT ARRAY[made.expires_at, shortened.expires_at] FROM made, shortened
    $$
"""
FUNCTIONS = ("revoke_api_key(text)", "rotate_api_key(text, text, text, bytea, interval)")
RIGHTS = (
    f"REVOKE ALL ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} TO daybook_command",
    f"GRANT EXECUTE ON FUNCTION {FUNCTIONS[0]} TO daybook_admin",
)


def upgrade() -> None:
    for statement in (ORIGIN, INDEX, REVOKE, ROTATE, *RIGHTS):
        op.execute(statement)


def downgrade() -> None:
    """Revokes the keys that were made over HTTP, because nothing would tell any more that they end with another key."""
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("UPDATE api_keys SET revoked_at = now() WHERE origin_key_id IS NOT NULL AND revoked_at IS NULL")
    op.execute("ALTER TABLE api_keys DROP COLUMN origin_key_id")
