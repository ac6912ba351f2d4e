#include <sys/types.h>

// grace_begin starts to wait for the grace period in a thread of its own, by a
// move of a process that is in this one's cgroup: not of this one, which may
// have to join another meanwhile.
void grace_begin(pid_t pid);
