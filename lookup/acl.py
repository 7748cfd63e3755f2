"""The least rights of the two Redis users: one that reads, one that publishes (docs/lookup.md)."""

from typing import NamedTuple

from schemas.keys import PREFIX

# Each client may see that its connection lives, choose the database of its URL, find a cluster's nodes, and learn where
# in a command its keys are, as redis-py does in a cluster.
_CONNECTION = ("ping", "select", "cluster|slots", "asking", "command")
_READS = ("get", "hget", "hgetall", "hvals")

READER = (*_CONNECTION, *_READS)
# Without `restore`, which Redis counts among the dangerous ones, a publisher sends HSET, and is some times slower.
PUBLISHER = (
    *_CONNECTION,
    *_READS,
    *("hlen", "hexists", "exists"),
    *("set", "hset", "hdel", "del", "unlink", "restore"),
    *("multi", "exec", "evalsha", "script|load", "time", "info", "wait"),
)


class User(NamedTuple):
    """A Redis user.

    Attributes:
        rules: What ACL SETUSER is given behind its name and password.
    """

    name: str
    rules: tuple[str, ...]

    def setuser(self, password: str) -> list[str]:
        """The words of the command that makes the user, or makes it anew: no earlier right or password is left."""
        return ["ACL", "SETUSER", self.name, "reset", "on", f">{password}", *self.rules]


def reader(table: str | None = None, *, redis_6: bool = False) -> User:
    """The user that readers and the API connect as.

    Args:
        table: The one that it may read; every one, when left out.
        redis_6: For a server before Redis 7, which cannot make keys read-only: there the commands alone do.
    """
    return _user("reader", table, "~" if redis_6 else "%R~", READER)


def publisher(table: str | None = None) -> User:
    """The user that publishes, rolls back and retires.

    Args:
        table: The one that it may write; every one, when left out.
    """
    return _user("publisher", table, "~", PUBLISHER)


def _user(role: str, table: str | None, access: str, commands: tuple[str, ...]) -> User:
    # The two places of a table's keys (schemas/keys.py). No name of a table has a character that a pattern knows.
    patterns = [f"{PREFIX}:{{{table}}}:*", f"{PREFIX}:{table}:*"] if table else [f"{PREFIX}:*"]
    name = "_".join(filter(None, (PREFIX, table, role)))
    keys = (f"{access}{pattern}" for pattern in patterns)
    return User(name, ("resetchannels", *keys, "-@all", *(f"+{command}" for command in commands)))
