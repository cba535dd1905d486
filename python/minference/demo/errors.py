# SPDX-License-Identifier: Apache-2.0
"""The one exception of the demo."""


class DemoError(Exception):
    """Something the user can put right. The text is one line: what is wrong, and what to do."""
