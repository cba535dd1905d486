# SPDX-License-Identifier: Apache-2.0
"""``minference demo``: a real model prefills a real text, dense and sparse; what differs, and by how much.

::

    inputs -> compare -> { prefill, passkey } -> report, maps -> plot        run.py ties them together
"""
