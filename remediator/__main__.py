"""`python -m remediator`."""

from __future__ import annotations

from remediator.cli import main

if __name__ == "__main__":
    main()
