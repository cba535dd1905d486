# SPDX-License-Identifier: Apache-2.0
"""Reads what the compiler made of the CUDA kernels, and draws the documentation's picture."""
