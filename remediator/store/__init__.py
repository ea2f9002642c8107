"""The journal: all state and all SQL. One function is one transaction body; `Database` runs it.

Called by the engine (writes) and the API (reads). Everything a person may ask later is in here.
"""

from __future__ import annotations
