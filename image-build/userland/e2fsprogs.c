/* mke2fs and e2fsck in one program, which is either by the name it is called by. The build renames their main. */

#include <string.h>

int mke2fs_main(int argc, char **argv);
int e2fsck_main(int argc, char **argv);

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";

	return strcmp(name, "mke2fs") == 0 ? mke2fs_main(argc, argv) : e2fsck_main(argc, argv);
}
