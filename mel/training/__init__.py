"""Loss, state, step, checkpoint, hooks and the loop."""
