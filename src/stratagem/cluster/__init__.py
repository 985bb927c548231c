"""Runs on Ray: engines, environments and learners in many processes, behind the protocols they have in one."""
