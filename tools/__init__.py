# SPDX-License-Identifier: Apache-2.0
"""Reads the machine code of the CUDA kernels, and draws the documentation's picture."""
