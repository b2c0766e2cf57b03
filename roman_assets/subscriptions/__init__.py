"""Subscriptions: people and programs that are told what happened to the products of a program."""
