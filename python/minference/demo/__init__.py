# SPDX-License-Identifier: Apache-2.0
"""``minference demo``: a real model prefills a real text, dense and sparse; how much differs.

::

    inputs -> compare -> { prefill, passkey } -> report, maps -> plot    run.py ties them
"""
