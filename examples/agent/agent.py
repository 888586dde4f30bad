"""An agent of Pydantic AI behind Tailrace: a provider by the name that the setting gives it.

    TAILRACE_PROVIDERS="support=agent:support"

It runs its own tools, in steps; Tailrace logs them, and whoever reads the reply may see them.
"""

from __future__ import annotations

import os
from typing import Final

from pydantic_ai import Agent

ORDERS: Final = {"1001": "was sent on Monday", "1002": "waits for its payment"}
"""In the place of a database."""

support = Agent(
    # "test" answers without a vendor and a key: it calls each tool once, and says what they returned.
    os.environ.get("AGENT_MODEL", "test"),
    instructions="You answer questions about orders. Look an order up before you speak of it.",
)


@support.tool_plain
def order_status(number: str = "1001") -> str:
    """Tell how an order stands.

    Args:
        number: four digits.
    """
    return f"Order {number} {ORDERS.get(number, 'is not known')}."
