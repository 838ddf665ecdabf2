"""What the launcher of this process (mpirun, srun) says about its run, in the environment. Knows no MPI."""
import os

# Set by the launchers for every process they start.
RANK_COUNTS = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MPI_LOCALNRANKS', 'PMIX_SIZE')


def launched():
    """Whether a launcher (mpirun, srun) started this process."""
    return any(name in os.environ for name in RANK_COUNTS + ('PMIX_RANK', 'PMI_RANK', 'SLURM_STEP_NUM_TASKS'))


def of_launcher(name):
    """Whether a variable of the environment was set by a launcher for the process that it started, and would mislead a launcher within it."""
    return name.startswith(('OMPI_', 'PMIX_', 'PMI_', 'PRTE_', 'MPI_LOCAL', 'HYDI_')) and not name.startswith(('OMPI_MCA_', 'PRTE_MCA_', 'OMPI_ALLOW_'))


def asked_ranks():
    """The rank count that the launcher was asked for, or None."""
    names = RANK_COUNTS[:2] + (('SLURM_STEP_NUM_TASKS',) if 'SLURM_STEP_ID' in os.environ and 'SLURM_PROCID' in os.environ else ())
    counts = [int(os.environ[name]) for name in names if os.environ.get(name, '').isdecimal()]
    return counts[0] if counts else None
