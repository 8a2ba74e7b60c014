/* qfilter train and qfilter classify. */
#ifndef QFILTER_CLASSIFY_H
#define QFILTER_CLASSIFY_H

#include "base/option.h"
#include "text/fasttext.h"

int train_main(int argc, char **argv);
int classify_main(int argc, char **argv);

#endif
