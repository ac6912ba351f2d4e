// The descriptor that is kept free for the listener.
#define DETACH_LISTENER 3

// detach_done lets the process end that waits for this one to be ready.
int detach_done(void);
