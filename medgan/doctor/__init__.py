"""Is the game healthy? Numbers beside the losses, and alarms that name a reason and a remedy.

Losses of a GAN do not tell how good its images are, and hardly whether both players still learn. These numbers do:

```
right_real, right_fake   share of the patches that the discriminator judges rightly; 0.5 is a guess
right_held_out           the same for real images of validation patients
logit_real, logit_fake   its mean verdict, above 0 for real, on images that it was trained on and on fakes of them
logit_held_out           its mean verdict on real images of validation patients
logit_held_out_fake      the same on what is made of images of validation patients
variety                  how much fakes of different patches differ, as a share of how much real ones do
variety_within           the same of images that are asked for the same: that classes differ does not count
spread                   how far the voxels of fakes lie apart in brightness, as a share of how far real ones do
changed                  share of what the discriminator sees that is changed, in games with adaptive changes
```

The length of each player's gradient stands beside the losses.
"""

from medgan.doctor.course import Spell, alarms, names_told, spells
from medgan.doctor.signs import Alarm
from medgan.doctor.vitals import examine, gradient_lengths

__all__ = ["Alarm", "Spell", "alarms", "examine", "gradient_lengths", "names_told", "spells"]
