/* Losses over a pair of answers, each given by how much more probable the policy finds it than the reference does. */
#ifndef DPO_LOSS_H
#define DPO_LOSS_H

#include <stdbool.h>

#define DPO_LOSSES "sigmoid|hinge|ipo|ipo_sum|robust|cdpo|sigmoid_norm|apo_zero|nca_pair|orpo|simpo"

typedef struct PairLoss {
    const char *kind; /* one of DPO_LOSSES */
    double beta, label_smoothing, gamma;
} PairLoss;

/* Has the loss no reference model? */
bool pair_loss_is_free(const PairLoss *l);

/* One side of a pair: Σ over the counted tokens of log π − log π_ref, and how many tokens those are. */
typedef struct PairSide {
    double ratio, tokens;
} PairSide;

/* The pair's loss; *dchosen and *drejected get its derivatives by the two ratios. Formulas as in trl/trainer/dpo_trainer.py,
 * with r = β·ratio and, where lengths are divided out, ratio/tokens: sigmoid −log σ(rc − rr); hinge max(0, 1 − (rc − rr));
 * ipo (δ − 1/2β)², δ the difference of ratios by token; ipo_sum the same of plain ratios (OpenRLHF); cdpo and robust with
 * smoothing ε; sigmoid_norm sigmoid by token; apo_zero 1 − σ(rc) + σ(rr); nca_pair −log σ(rc) − ½ log σ(−rc) − ½ log σ(−rr). Without a
 * reference the ratio is log π itself and l = ratio/tokens: orpo −β log σ(log odds(lc) − log odds(lr)), odds(l) = e^l/(1 − e^l) (Hong et
 * al. 2024, orpo_trainer.py); simpo −log σ(β(lc − lr) − γ) (Meng et al. 2024, cpo_trainer.py). */
double pair_loss(const PairLoss *l, PairSide chosen, PairSide rejected, double *dchosen, double *drejected);

#endif
