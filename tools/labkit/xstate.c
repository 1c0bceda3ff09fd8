/* Lets User-Mode Linux run where a process has more registers than it knows of: on a processor with AMX.
 *
 * Linux takes the extended state of another process (PTRACE_SETREGSET, NT_X86_XSTATE) only as a whole, and fails with
 * EFAULT otherwise. The guest's kernel keeps the first 2,696 bytes of it: all but AMX's, which no process has unless it
 * asked for them (arch_prctl). What the guest does not give stays as it is. Preloaded; anything else passes unchanged.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSTATE 0x202 /* NT_X86_XSTATE, of linux/elf.h */

static char state[1 << 16]; /* not on the stack: the guest's are small; it has one processor, and calls this on it only */

long ptrace(enum __ptrace_request request, ...)
{
    static long (*next)(enum __ptrace_request, ...);
    struct iovec whole = {state, sizeof state};
    struct iovec *given;
    va_list arguments;
    pid_t process;
    void *address, *data;
    long result;

    va_start(arguments, request);
    process = va_arg(arguments, pid_t);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);
    if (next == NULL)
        next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
    result = next(request, process, address, data);
    if (result >= 0 || errno != EFAULT || request != PTRACE_SETREGSET || (long)address != XSTATE)
        return result;
    given = data;
    if (next(PTRACE_GETREGSET, process, address, &whole) < 0 || given->iov_len >= whole.iov_len)
        return -1; /* with the error of this call, or of the first */
    memcpy(state, given->iov_base, given->iov_len);
    return next(PTRACE_SETREGSET, process, address, &whole);
}
