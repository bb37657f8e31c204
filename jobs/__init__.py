"""The jobs that spark-submit runs: arguments, session and the order of steps; nothing else."""
