"""The life of a response: accept (the one door), read (Redis, then SQL), end, delete, requeue."""
