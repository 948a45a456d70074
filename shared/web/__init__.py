"""The HTTP code that both APIs share: problems, headers, admission, health, metrics, and the server's protocol."""
