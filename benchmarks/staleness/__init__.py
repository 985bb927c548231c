"""Runs on a local cluster beside the same in one process: equal numbers, and equal success when rollouts run ahead."""
