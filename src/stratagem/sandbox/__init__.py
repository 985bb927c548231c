"""Code and queries that a policy wrote, run outside this process within limits."""

from stratagem.sandbox.database import QueryError, QueryLimits, Rows, read_query, run_query
from stratagem.sandbox.isolation import Isolation, Sandbox, run_python, sandbox
from stratagem.sandbox.supervisor import Limit, Limits, Result

__all__ = [
    "Isolation",
    "Limit",
    "Limits",
    "QueryError",
    "QueryLimits",
    "Result",
    "Rows",
    "Sandbox",
    "read_query",
    "run_python",
    "run_query",
    "sandbox",
]
