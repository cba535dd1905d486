# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of every family of transformers, compared between attentions."""
