# SPDX-License-Identifier: Apache-2.0
"""Engines that minference plugs into, one module each, imported only by who uses them."""
