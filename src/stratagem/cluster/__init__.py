"""More than one process: a learner whose weights are divided among the members of a group."""
