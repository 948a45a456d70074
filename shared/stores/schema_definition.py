"""Reads how PostgreSQL defines Daybook's schema, and compares it with what the migrations make.

A dropped primary key, a disabled trigger or a new grant changes no row, so no check of the data would find it. The file
`schema_definition.txt` has one line for each column, constraint, index, trigger, function and grant. `make schema` writes it from
a database that has just been migrated, and a test compares both.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

FILE_NAME: Final = "schema_definition.txt"

# The owner of the tables has another name in every installation, so grants to the owner are left out: every owner has all rights.
# Each part names a kind of thing, and then the thing in a form that does not depend on object ids or on the owner.
READ_DEFINITION: Final = text(r"""
    WITH ours AS (
        SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.reloptions, c.relrowsecurity, c.relpersistence
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    )
    SELECT concat_ws(' ', 'table', relname, relkind, relpersistence, reloptions::text,
                     CASE WHEN relrowsecurity THEN 'row security' END)
    FROM ours
    UNION ALL
    SELECT concat_ws(' ', 'column', relname, attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'not null' END,
                     pg_get_expr(d.adbin, d.adrelid))
    FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION ALL
    SELECT concat_ws(' ', 'constraint', relname, conname, pg_get_constraintdef(k.oid),
                     CASE WHEN NOT convalidated THEN 'not valid' END)
    FROM ours JOIN pg_constraint k ON k.conrelid = ours.oid WHERE k.contype <> 'n'
    UNION ALL
    SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid),
                     CASE WHEN NOT (indisvalid AND indisready AND indislive) THEN 'not valid' END)
    FROM ours JOIN pg_index ON indrelid = ours.oid
    UNION ALL
    SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), 'enabled', tgenabled)
    FROM ours JOIN pg_trigger t ON tgrelid = ours.oid WHERE NOT tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'rule', pg_get_ruledef(r.oid)) FROM ours JOIN pg_rewrite r ON ev_class = ours.oid
    UNION ALL
    SELECT concat_ws(' ', 'policy', relname, polname) FROM ours JOIN pg_policy ON polrelid = ours.oid
    UNION ALL
    SELECT concat_ws(' ', 'function', proname, pg_get_function_identity_arguments(oid), 'returns', prorettype::regtype,
                     CASE WHEN prosecdef THEN 'security definer' END, md5(prosrc))
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'grant', privilege_type, 'on', relname, 'to', coalesce(r.rolname, 'everybody'),
                     CASE WHEN is_grantable THEN 'grantable' END)
    FROM ours CROSS JOIN LATERAL aclexplode(relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee WHERE g.grantee <> relowner
    UNION ALL
    SELECT concat_ws(' ', 'grant', privilege_type, 'on', relname || '.' || attname, 'to', coalesce(r.rolname, 'everybody'),
                     CASE WHEN is_grantable THEN 'grantable' END)
    FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid AND a.attacl IS NOT NULL
    CROSS JOIN LATERAL aclexplode(attacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee WHERE g.grantee <> relowner
""")


async def read_definition(connection: AsyncConnection) -> list[str]:
    """Returns the definition of the schema in the connection's database: one line for each part, sorted."""
    return sorted(row[0] for row in await connection.execute(READ_DEFINITION))


def expected_definition() -> Sequence[str]:
    """Returns the definition that the migrations of this code make."""
    return (files("shared.stores") / FILE_NAME).read_text().splitlines()
