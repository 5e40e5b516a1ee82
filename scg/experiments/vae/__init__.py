"""Discrete autoencoders: the models of the REBAR and RELAX papers, under any estimator."""
