// The official C implementation, held to its SSE4.1 assembly, as a peer: each line on stdin is a number of repetitions;
// answers with the nanoseconds of processor time that hashing 1 MiB so often took.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "blake3.h"

int main(void) {
  static unsigned char input[1 << 20];
  for (unsigned k = 0; k < sizeof input; k++) input[k] = (unsigned char)((k * 2654435761u) >> 13);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    for (long k = atol(line); k > 0; k--) {
      unsigned char digest[BLAKE3_OUT_LEN];
      blake3_hasher hasher;
      blake3_hasher_init(&hasher);
      blake3_hasher_update(&hasher, input, sizeof input);
      blake3_hasher_finalize(&hasher, digest, sizeof digest);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    printf("%lld\n", (after.tv_sec - before.tv_sec) * 1000000000ll + (after.tv_nsec - before.tv_nsec));
    fflush(stdout);
  }
  return 0;
}
