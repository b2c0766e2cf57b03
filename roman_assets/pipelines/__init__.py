"""The science: packets to L1, romancal per exposure and per visit. Plain Python without Dagster."""
