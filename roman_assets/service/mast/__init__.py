"""MAST's mission search for Roman, answered from this archive.

Requests and answers are those of MAST's public interface, so that `astroquery.mast.MastMissions`
works unchanged: column list, search, product list and retrieval.
"""
