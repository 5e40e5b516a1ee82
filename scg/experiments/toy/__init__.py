"""The toy problem of Tucker et al. (2017): one coin, and a cost that hardly tells its sides apart."""
