"""Passwords for tests: an operator issues a reset token, and the user sets a password with it."""

import httpx2

from tests.harness.keys import OPERATOR, bearer


async def give_password(client: httpx2.AsyncClient, user_id: str, password: str, token: str = OPERATOR) -> httpx2.Response:
    """Sets a user's password. `token` is a key with `credentials:write`. Returns the first answer that is not a success."""
    issued = await client.post(f"/v1/users/{user_id}/reset-token", headers=bearer(token))
    if not issued.is_success:
        return issued
    body = {"token": issued.json()["token"], "password": password}
    return await client.post("/v1/password-resets", json=body)
