# The environment under which MPI ranks start well; sourced by every script in jobs/ and by the tests.
# Each line may be overridden by setting the variable beforehand.

if [ "$(id -u)" = 0 ]; then                                 # Open MPI refuses root unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Open MPI: looking for fast networks costs a second at every start; Pis and laptops have TCP and shared memory, which is called sm in version 5
# and vader in 4: both refuse the other's name in a list of what to use, neither minds unknown names in one of what not to use
export OMPI_MCA_pml="${OMPI_MCA_pml:-ob1}" OMPI_MCA_btl="${OMPI_MCA_btl:-^ofi,uct,usnic,openib,smcuda}"
# over TCP a message up to this size leaves at once; a larger one asks first whether it may, and stands still until both sides look, which a rank that
# computes does rarely. Six emulated hosts waited twice as long for filters' inputs with 64 KiB, the default, as with 512; with those, which some
# messages of full YOLOv2 exceed, 50 ms a step longer than with 2 MiB on 700 Mbit/s, 15 ms on 2.4 Gbit/s; what ranks take at most was the same
export OMPI_MCA_btl_tcp_eager_limit="${OMPI_MCA_btl_tcp_eager_limit:-2097152}" OMPI_MCA_btl_tcp_max_send_size="${OMPI_MCA_btl_tcp_max_send_size:-2097152}"
# a waiting rank gives its core away: without this 6 ranks on 2 cores need 12 ms for a barrier
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
# more ranks than cores are allowed, and nobody is pinned (else the first rank of every host sits on core 0)
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export PRTE_MCA_hwloc_default_binding_policy="${PRTE_MCA_hwloc_default_binding_policy:-none}"
# the same three for Open MPI 4 (Debian's package)
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
# MPICH: a waiting rank sleeps instead of starving one that computes (costs 0.4 ms of latency; set 0 with a core for every rank)
export MPIR_CVAR_ENABLE_HEAVY_YIELD="${MPIR_CVAR_ENABLE_HEAVY_YIELD:-1}"

# one thread a rank unless the job says otherwise
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
