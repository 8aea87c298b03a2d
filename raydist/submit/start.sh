# Runs a raydist verb as a Ray job: finds the Python that the cluster's Ray runs on, and hands over to raydist_start.py.
# The first `python` on the PATH of a node need not be that one. This shell's parent is a worker of Ray, and the parent
# of that one is the raylet, whose command names the Python.
raylet=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$PPID/status" 2>/dev/null)
named=$(tr '\0' '\n' 2>/dev/null <"/proc/$raylet/cmdline" | sed -n 's/^--python_worker_command=\([^ ]*\).*/\1/p')
for python in "$named" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" python3 python; do
    if [ -n "$python" ] && "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("ray") is None)' 2>/dev/null
    then
        exec "$python" raydist_start.py "$@"
    fi
done
echo "error: found no Python with ray on the head node: expected one on its PATH, or the one that started Ray" >&2
exit 1
