"""What networks learn from and how: tasks, scores, cases, recipes, the trainer, augmentation, networks."""
