# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of minference; run from the repository root, see README.md here."""
