"""Every estimator on five standard graphs: which is right, how much it varies, and what it takes."""
