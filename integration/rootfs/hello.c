/*
 * The only program of the scratch image: no libc beside it, no shell, no folders.
 *   hello WORDS...    prints each word on a line
 *   hello exit N      exits with N
 *   hello sleep       waits until a signal ends it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	puts("hello");
	for (int i = 1; i < argc; i++)
		puts(argv[i]);
	fflush(stdout);
	if (argc == 3 && strcmp(argv[1], "exit") == 0)
		return atoi(argv[2]);
	if (argc == 2 && strcmp(argv[1], "sleep") == 0)
		for (;;)
			pause();
	return 0;
}
