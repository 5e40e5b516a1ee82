"""From facts to choices: which estimator each random variable gets, and what that learns."""
